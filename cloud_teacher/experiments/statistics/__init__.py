"""Anytime-valid statistics. Functions take numbers or arrays, so that simulations run many experiments at once."""
