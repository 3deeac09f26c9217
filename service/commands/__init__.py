"""What the command line's commands do; ``service.cli`` declares their options."""
