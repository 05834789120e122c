"""Ray Serve deployment. The only package of the service that imports ray."""
