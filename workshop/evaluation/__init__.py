"""Measuring: collections, rankings, answers, intervals and tables."""
