#!/bin/sh
# Ask with curl: a chat completion, and a response that streams.
set -e
url=${1:-http://127.0.0.1:8080}

curl --silent --fail-with-body "$url/v1/chat/completions" \
  --header 'Content-Type: application/json' \
  --data '{"model": "tiny-reasoner",
           "messages": [{"role": "user", "content": "What is 348 + 275?"}]}'
echo

curl --silent --fail-with-body --no-buffer "$url/v1/responses" \
  --header 'Content-Type: application/json' \
  --data '{"model": "tiny-reasoner", "input": "What is 348 + 275?", "stream": true}'
