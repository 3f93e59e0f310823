"""What every ML Hub service has in common: contracts, the bus and the service runtime."""
