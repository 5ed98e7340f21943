"""What is predicted. It imports no kernel."""
