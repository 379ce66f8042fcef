"""What is started by hand or by a scheduler: the black box, and the simulation."""
