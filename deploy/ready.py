"""`ready.py URL`: ends with 0 where a GET of the URL is answered with 200. For health checks: images have no curl."""

import http.client
import sys
from urllib.parse import urlsplit

url = urlsplit(sys.argv[1])
try:
    connection = http.client.HTTPConnection(url.netloc, timeout=4)  # reads no proxy from the environment
    connection.request("GET", url.path or "/")
    answer = connection.getresponse()
    sys.stdout.write(f"{answer.status} {answer.read(300).decode(errors='replace')}\n")
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
sys.exit(answer.status != 200)
