"""Stored losses of small trainings, made by a program that is not our trainer."""
