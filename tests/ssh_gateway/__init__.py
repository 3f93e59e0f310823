"""The SSH gateway with real clients of OpenSSH, a real attach endpoint and a real bus."""
