"""The doors through which bytes come in and go out: HTTP and the command line."""
