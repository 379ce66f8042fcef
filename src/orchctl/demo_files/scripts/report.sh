#!/bin/sh
set -e
folder=$1
mkdir -p "$folder/charts" "$folder/raw/a" "$folder/raw/b"
echo "report for $ORCHCTL_GAME_DATE as of $ORCHCTL_RUN_AS_OF_TS"
printf 'player,points\na,12\nb,30\n' > "$folder/totals.csv"
for chart in points minutes; do
  echo "<svg/>" > "$folder/charts/$chart.svg"
  echo "drew $chart"
done
date > "$folder/raw/a/1" && date > "$folder/raw/b/2"
