"""What people look at while a command runs and afterwards: progress in the terminal, self-contained pages."""
