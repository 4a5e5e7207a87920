"""What one callback has made among all that lies in a store."""

from holdfast.series import KEY as KEY
from holdfast.series import KeepInSeries as KeepInSeries
from holdfast.series import belongs as belongs
