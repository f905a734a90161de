"""The lab: a local page where one sees networks learn, and tries them. `epochal lab` serves it, see `server.lab`."""
