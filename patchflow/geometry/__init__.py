"""Pure integers and numpy: where patches lie, how grids tile, how windows sum to one."""
