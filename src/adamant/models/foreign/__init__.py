"""Models of other frameworks as torch modules: the bridge, and the frameworks that it leads to."""
