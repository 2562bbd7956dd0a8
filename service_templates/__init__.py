"""service_templates."""
