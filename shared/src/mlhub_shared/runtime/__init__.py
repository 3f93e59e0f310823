"""What every service does alike: settings, logging, health, metrics, start and end."""
