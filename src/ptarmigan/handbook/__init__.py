"""The command `losses`: explain, plot and identify losses."""
