"""The main job: select, plan, run, report."""
