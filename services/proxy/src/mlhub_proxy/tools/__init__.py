"""Who gets to the ports of a workspace: the hub says, this asks it and remembers for a moment."""
