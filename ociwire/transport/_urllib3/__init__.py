"""The base transport, which sends requests over urllib3 connections."""
