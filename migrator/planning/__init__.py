"""The plan of an evacuation: in what order, where to, by which rung, and when. Values in, values out."""
