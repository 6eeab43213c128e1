"""Common parts of all resources: calls, routes, fields, stored resources and movements; nothing here imports a resource."""
