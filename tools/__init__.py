"""Scripts for the people who work on this project. Nothing that is installed imports them."""
