"""`python -m mlhub_hub`."""

from mlhub_hub.app import main

if __name__ == "__main__":
    main()
