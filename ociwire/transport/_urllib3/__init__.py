"""The base transport: requests over urllib3 connections."""
