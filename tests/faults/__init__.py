"""Crashes and faults on purpose: every verb that writes is killed, and each of its writing calls fails once.

inject.cpp   preloaded: counts the writing calls, fails, shortens or kills at one
server.py    one process with torch loaded, forked for each trial
scenes.py    what is run, and what must be there afterwards
campaign.py  `make faults`: all of it, recorded in results/faults.json
"""
