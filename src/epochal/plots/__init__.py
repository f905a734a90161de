"""Everything that draws: images, charts and heat maps with Pillow, pictures in the terminal, interactive Vega-Lite charts."""
