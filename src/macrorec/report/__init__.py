"""Tables and plots of runs beside the published numbers."""
