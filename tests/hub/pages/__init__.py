"""What people see in their browser."""
