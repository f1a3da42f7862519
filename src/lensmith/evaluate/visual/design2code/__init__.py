"""Design2Code's four terms for any two pages of HTML, computed as its authors' scorer does. Begin with `score`."""
