"""Orders as Plackett-Luce distributions, the uniforms they are drawn with, the noise schedule."""
