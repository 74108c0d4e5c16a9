"""What the activities of all families share."""
