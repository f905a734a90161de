"""Milestone architectures, each in one file, each a plain torch.nn.Module that also works without the framework."""

from epochal.models.alexnet import AlexNet
from epochal.models.bert import BERT
from epochal.models.captioner import Captioner
from epochal.models.cnn import CNN
from epochal.models.efficientnet import EfficientNet
from epochal.models.gan import GAN
from epochal.models.googlenet import GoogLeNet
from epochal.models.gpt import GPT
from epochal.models.lenet import LeNet
from epochal.models.llama import LLaMA
from epochal.models.mlp import MLP
from epochal.models.recurrent import RNN
from epochal.models.resnet import ResNet
from epochal.models.seq2seq import Seq2Seq
from epochal.models.timm import Timm
from epochal.models.transformer import Transformer
from epochal.models.transformer_encoder import TransformerEncoder
from epochal.models.vgg import VGG
from epochal.models.vit import ViT

__all__ = [
    "BERT",
    "CNN",
    "GAN",
    "GPT",
    "MLP",
    "RNN",
    "VGG",
    "AlexNet",
    "Captioner",
    "EfficientNet",
    "GoogLeNet",
    "LLaMA",
    "LeNet",
    "ResNet",
    "Seq2Seq",
    "Timm",
    "Transformer",
    "TransformerEncoder",
    "ViT",
]
