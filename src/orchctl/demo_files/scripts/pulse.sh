#!/bin/sh
echo "pulse for ${1:-no slot}, run $ORCHCTL_RUN_ID"
