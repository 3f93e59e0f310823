"""What two services both know: pydantic and the standard library only."""
