"""From a pretrained language model to one that answers as people like, one objective a file."""
