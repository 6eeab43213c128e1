"""Common: what every resource is built with. It knows no resource."""
