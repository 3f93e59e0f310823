"""One module for each measure: a coroutine that takes the bench and adds figures to its report."""
