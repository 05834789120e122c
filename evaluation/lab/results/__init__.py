"""Result rows and result folders."""
