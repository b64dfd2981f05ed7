"""The front door: login, agencies, JupyterHub and the command line."""
