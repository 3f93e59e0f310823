"""Who may come in: sign-up, approval, passwords, lock-out and SSH keys, in the hub's own database."""
