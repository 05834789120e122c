"""`ready.py URL`: exit with 0 if a GET of the URL returns 200. It serves health checks, because the images have no curl."""

import http.client
import sys
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
try:
    connection = http.client.HTTPConnection(url.netloc, timeout=4)  # reads no proxy from the environment
    connection.request("GET", url.path or "/")
    response = connection.getresponse()
    sys.stdout.write(f"{response.status} {response.read(300).decode(errors='replace')}\n")
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
sys.exit(response.status != 200)
