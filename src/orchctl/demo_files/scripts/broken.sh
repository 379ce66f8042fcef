#!/bin/sh
echo "asking the service with token $SERVICE_TOKEN"
echo "the service said no" >&2
exit 7
