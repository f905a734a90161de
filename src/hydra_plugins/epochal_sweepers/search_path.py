"""Adds the user's own folders of configs to Hydra's search path, so that all that Hydra does includes them: also --help."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin


class OwnFolders(SearchPathPlugin):
    """The folders that `--config-dir` and `hydra.searchpath` named on the command line."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        from epochal.config.compose import own_folders

        for path in own_folders():
            search_path.append(provider="own", path=path)
