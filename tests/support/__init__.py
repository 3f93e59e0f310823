"""What tests share: real servers on free ports, and makers of messages."""
