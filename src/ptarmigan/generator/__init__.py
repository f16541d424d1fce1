"""What is left when training ends: a generator folder, and the images it makes."""
