"""Agents: tasks in which the model calls tools, turn after turn, and answers at the end."""
