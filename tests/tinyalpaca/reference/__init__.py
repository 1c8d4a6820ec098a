"""Stored losses of small trainings, made by a program that is independent of our trainer."""
