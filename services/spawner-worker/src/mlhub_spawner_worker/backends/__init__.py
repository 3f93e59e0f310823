"""What workspaces run on: one Protocol, and one package for each that implements it."""
