"""SSH into a workspace: ours, and through OpenSSH's own jump host."""
